//! xebec
fn main() {}
