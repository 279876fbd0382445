//! The programs `waxwing` and `waxwing-node` themselves, against real nodes: what a person, an operator and a script can do with them, what
//! they print, and how they end.

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
