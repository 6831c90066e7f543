//! xebec-net
