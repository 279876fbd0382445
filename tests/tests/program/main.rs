//! The programs `waxwing` and `waxwing-node` themselves, against real nodes: what a person, an operator and a script can do with them, what
//! they print, and how they end.

#![expect(
    clippy::indexing_slicing,
    reason = "a field that JSON lacks is null, and a list that is too short fails the test"
)]

#[cfg(test)]
mod common;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod refused;
#[cfg(test)]
mod talk;
#[cfg(test)]
mod trust;
