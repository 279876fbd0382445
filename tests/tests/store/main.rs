//! Every function of the node's store, on both databases.

#[cfg(test)]
mod commit;
#[cfg(test)]
mod harness;
mod hot;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod opening;
#[cfg(test)]
mod people;
#[cfg(test)]
mod placing;
#[cfg(test)]
mod rooms;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod traffic;
