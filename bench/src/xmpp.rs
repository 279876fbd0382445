//! What people would pick instead: ejabberd and Prosody, started with durable archives and TLS on loopback, and a client for both.

pub mod ejabberd;
pub mod install;
pub mod postgres;
pub mod prosody;
pub mod stage;
pub mod stream;
pub mod xml;
