//! How Linux looks for OP-TEE, and what it is told where there is none.

use anyhow::Result;
use litebox_platform_lvbs::vsm::VsmFunction as F;

use super::report::show_result;
use super::stage::Stage;
use crate::machine::Vtl0;
use crate::vtl0::bytes;
use crate::vtl0::optee::{DISCOVERY, Message};

/// Plays the discovery.
pub(super) fn play(stage: &mut Stage<'_>, vtl0: &mut Vtl0) -> Result<()> {
    let page = vtl0.with_scratch(|scratch| scratch.pages(1))?;
    let machine = vtl0.machine();
    for message in DISCOVERY {
        bytes::write(machine.ram(), page, &Message::to_bytes(&message.registers))?;
        let shown = format!("{:#x} ({:#x}, 0x0, 0x0): {}", F::OpteeMessage.id(), page >> 12, message.what);
        stage.step(vtl0, F::OpteeMessage.name(), &shown, "answered", |vtl0| {
            let result = vtl0.vtl_call(F::OpteeMessage.id(), page >> 12, 0, 0)?.value;
            let mut answer = [0; 72];
            bytes::read(machine.ram(), page, &mut answer)?;
            let answer = Message::from_bytes(&answer);
            Ok(match result {
                0 if message.accepts(&answer) => "answered".to_owned(),
                0 => format!("{:x?}", &answer[..4]),
                error => show_result(error),
            })
        })?;
    }
    stage.call(vtl0, F::OpteeMessage, [1 << 40, 0, 0], "-EFAULT")
}
