//! The configuration file that `waxwing-node init` writes.

use std::path::Path;

/// A commented configuration of at most 40 lines; what is commented out shows the default.
#[must_use]
pub fn example(domain: &str, data_dir: &Path) -> String {
    let domain = toml::Value::from(domain);
    let data_dir = toml::Value::from(data_dir.display().to_string());
    format!(
        r#"# Waxwing node. Environment: WAXWING_NODE_SECTION__KEY. Check with `waxwing-node config check`.
# The part after the last @ of people's names. It cannot be changed later.
domain = {domain}
# Keys, database and ballast; relative to this file. Only the node may read it.
data_dir = {data_dir}

[listen]
# One port for devices and peers; port 0 takes a free one and writes it to <data_dir>/address.
address = "0.0.0.0:8443"

[public]
# What invitation lines say: host ("" = the domain) and port (0 = the one listened on).
host = ""
port = 0

[database]
# "" = SQLite in data_dir, or "postgres://user:password@host/name".
url = ""

[retention]
# How many days a message waits for a device or a peer that does not come; at most 30.
days = 30

[disk]
# Below this much free space nothing new is taken; what is held is still delivered.
low_water_mib = 256
# A file that is given up so that deletes work on a full disk.
ballast_mib = 64

[log]
# "text" or "json", to stderr.
format = "text"
level = "info"

# [limits]    connections, connections_per_address, *_ms, passwords_at_once, *_per_minute, *_per_second, rooms_per_peer
"#
    )
}
