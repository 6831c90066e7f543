//! xebec-engine
