//! Boots a kernel as VTL0: `cargo run -p vsm_sim --example linux -- KERNEL INITRD COMMAND-LINE [VPS] [count|single|trace]...`

use std::sync::Arc;

use anyhow::{Context, Result};
use vsm_sim::linux::{self, Event, Options};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initrd, command_line, rest @ ..] = &arguments[..] else {
        anyhow::bail!("linux KERNEL INITRD COMMAND-LINE [VPS] [count|single|trace]...");
    };
    let read = |path: &String| std::fs::read(path).with_context(|| path.clone());
    let has = |word: &str| rest.iter().any(|argument| argument == word);
    let options = Options {
        vps: rest.first().and_then(|text| text.parse().ok()).unwrap_or(1),
        count: has("count"),
        one_thread: has("single"),
        trace: has("trace"),
        ..Options::new(read(kernel)?, read(initrd)?, command_line.clone())
    };
    let outcome = linux::boot(
        options,
        Arc::new(|time, event| match event {
            Event::Vtl0Bytes(_) => {}
            Event::Vtl0Line(line) => println!("{:8.3} {line}", time.as_secs_f64()),
            other => println!("{:8.3} {other:x?}", time.as_secs_f64()),
        }),
    )?;
    println!("{outcome:#?}");
    Ok(())
}
