//! xebec-serve
