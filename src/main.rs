//! Arguments in, exit code out.

use std::process::ExitCode;

use veilgate::app;
use veilgate::cli::{self, Outcome};

// Shards allocate from their own heaps; forwarding itself allocates nothing.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        Outcome::Exit(code) => ExitCode::from(code),
        Outcome::Serve(plan) => match app::run(*plan) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("veilgate: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}
