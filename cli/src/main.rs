//! The command line client, `waxwing`.

fn main() {}
