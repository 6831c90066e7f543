//! Writes the generated Rust files: `make generate`.
use xebec_e2e::generate;

fn main() -> anyhow::Result<()> {
    for file in generate::all()? {
        std::fs::write(generate::root().join(file.path), file.content)?;
    }
    Ok(())
}
