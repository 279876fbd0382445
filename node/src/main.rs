//! `waxwing-node`: the node's program. Everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    node::command::main()
}
