//! How costs grow.
