//! Faults: what the disk, the power and the machine do to a node, on real databases and real processes.
//!
//! A run that injected no fault is a failed run: every test counts what it did and asserts that it was something.
