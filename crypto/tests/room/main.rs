//! Rooms with a hub and devices in one process: their life, their settings, and what is refused.

// `cfg(test)` is always true here; it tells clippy that helpers may panic as tests may.
#[cfg(test)]
mod common;
#[cfg(test)]
mod garbage;
#[cfg(test)]
mod life;
#[cfg(test)]
mod outlaw;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod tamper;
