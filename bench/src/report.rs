//! What was measured: kept as data, shown as a page.

pub mod page;
pub mod plot;
pub mod results;
pub mod target;
