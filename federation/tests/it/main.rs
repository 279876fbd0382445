//! Federation over real TLS on loopback.

#[cfg(test)]
mod certificates;
#[cfg(test)]
mod client;
#[cfg(test)]
mod forge;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod support;
