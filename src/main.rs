//! Arguments in, exit code out.

use std::process::ExitCode;

use veilgate::cli::{self, Outcome};

fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        Outcome::Exit(code) => ExitCode::from(code),
        Outcome::Serve(plan) => {
            // SEAM: the composition root's run(plan) belongs here; it is built on another branch.
            eprintln!(
                "veilgate: prepared for {} and {}, but this build has no data plane",
                plan.config.listen.udp, plan.config.listen.https
            );
            ExitCode::FAILURE
        }
    }
}
