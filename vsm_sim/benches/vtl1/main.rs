//! How long VTL1's logic takes on this host: `cargo bench -p vsm_sim`.
//!
//! The hypervisor under it answers at once, so that the figures are those of VTL1's own code. They are for comparing two
//! versions on one machine; no test depends on a time. The results are for people only.
//!
//! | module | what is measured |
//! |---|---|
//! | `dispatch` | a VSM call from its registers to its result |
//! | `patch_text` | the look-up of a patch site among 10^2 to 10^6 sites |
//! | `protect_memory` | a ProtectMemory of 40,000 ranges, the walk of such a list, hypercalls per GiB |
//! | `registry` | look-up and a small transaction among 10^2 to 10^6 intervals |

mod dispatch;
mod hypervisor;
mod patch_text;
mod protect_memory;
mod registry;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    // Small samples: all of it should take less than two minutes.
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    dispatch::bench(&mut criterion);
    registry::bench(&mut criterion);
    patch_text::bench(&mut criterion);
    protect_memory::bench(&mut criterion);
    criterion.final_summary();
}
