//! Rooms with a hub and devices in one process: their life, their settings, and what is refused.

mod common;
mod life;
mod outlaw;
mod settings;
mod tamper;
