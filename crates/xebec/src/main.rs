//! The command. Everything is in the library, so that tests and tools reach it.
use std::process::ExitCode;

// Many small, short allocations on every core: the system's allocator costs a tenth of a request.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    xebec::cli::main()
}
