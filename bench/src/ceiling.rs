//! What the machine alone would allow: TLS that only echoes, and a database that only inserts. Each runs in a process of its own, so that its
//! costs are counted as a server's are.

pub mod echo;
pub mod insert;
