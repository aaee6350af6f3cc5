//! What a run tells of VSM calls, intercepts and exits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use litebox_platform_lvbs::hv::{EntryReason, Vtl};

use super::processors::{Figures, Run};
use super::{Event, Observer};
use crate::engine::{Exit, Reason, SharedState};
use crate::hv::{Trace, TraceEvent};
use crate::machine::watch::{Change, Watch};

/// A call that VTL1 has not answered yet.
struct Call {
    id: u64,
    arguments: [u64; 3],
    began: Instant,
    instructions: u64,
    hypercalls: u32,
}

/// Watches one processor.
pub(super) struct Watcher {
    run: Arc<Run>,
    vp: u32,
    figures: Arc<Mutex<Figures>>,
    call: Option<Call>,
}

impl Watcher {
    pub(super) fn new(run: Arc<Run>, vp: u32, figures: Arc<Mutex<Figures>>) -> Self {
        Self { run, vp, figures, call: None }
    }

    fn figures<R>(&self, work: impl FnOnce(&mut Figures) -> R) -> R {
        work(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The cause of an exit, in few enough kinds to be counted by.
fn kind(vtl: Vtl, exit: &Exit) -> String {
    let what = match &exit.reason {
        Reason::Hypercall => "hypercall".into(),
        Reason::MsrRead { msr } => format!("rdmsr {msr:#x}"),
        Reason::MsrWrite { msr, .. } => format!("wrmsr {msr:#x}"),
        Reason::Cpuid { leaf, .. } => match leaf >> 16 {
            0x4000 | 0x4001 => "cpuid of the hypervisor".into(),
            _ => "cpuid".into(),
        },
        Reason::Io { port, write: true, .. } => format!("out {port:#x}"),
        Reason::Io { port, write: false, .. } => format!("in {port:#x}"),
        Reason::Memory(fault) if fault.gpa >> 12 == 0xf_ee00 => "local APIC".into(),
        Reason::Memory(_) => "memory".into(),
        Reason::CrWrite { cr, .. } => format!("write of CR{cr}"),
        Reason::TableWrite(table) => format!("load of {table:?}"),
        Reason::Halt => "halt".into(),
        Reason::Kicked => "called".into(),
        Reason::Shutdown => "triple fault".into(),
        Reason::Exception { vector, .. } => format!("exception {vector}"),
        Reason::Step | Reason::Unsupported(_) => "other".into(),
    };
    format!("{vtl} {what}")
}

impl Watch for Watcher {
    fn stopped(&mut self, vtl: Vtl, exit: &Exit, _: &SharedState) {
        self.run.active();
        self.figures(|figures| *figures.exits.entry(kind(vtl, exit)).or_default() += 1);
        if vtl == Vtl::Vtl1
            && exit.reason == Reason::Hypercall
            && let Some(call) = &mut self.call
        {
            call.hypercalls += 1;
        }
    }

    fn changed(&mut self, change: Change, shared: &SharedState, instructions: u64) {
        match change {
            Change::Enter(EntryReason::VTL_CALL) => {
                let arguments = [shared.rsi, shared.rdx, shared.r8];
                let (id, began) = (shared.rdi, Instant::now());
                self.call = Some(Call { id, arguments, began, instructions, hypercalls: 0 });
            }
            Change::Enter(_) => self.call = None,
            Change::Return => {
                let Some(call) = self.call.take() else { return };
                self.figures(|figures| figures.calls += 1);
                self.run.tell(Event::Call {
                    vp: self.vp,
                    id: call.id,
                    arguments: call.arguments,
                    answer: shared.r8.cast_signed(),
                    nanoseconds: u64::try_from(call.began.elapsed().as_nanos()).unwrap_or(u64::MAX),
                    instructions: instructions - call.instructions,
                    // The last one is the return.
                    hypercalls: call.hypercalls.saturating_sub(1),
                });
            }
        }
    }
}

/// Makes events of intercepts, and of misuse, from the model's trace; with everything else of it when wanted.
pub(super) struct Intercepts {
    /// For each processor, what VTL0 was stopped at and whether VTL1 has raised an exception since.
    pending: Vec<Mutex<Option<(String, Option<u16>)>>>,
    began: Instant,
    observer: Observer,
    trace: bool,
}

impl Intercepts {
    pub(super) fn new(vps: u32, began: Instant, observer: Observer, trace: bool) -> Self {
        let pending = (0..vps).map(|_| Mutex::new(None)).collect();
        Self { pending, began, observer, trace }
    }

    fn tell(&self, event: Event<'_>) {
        (self.observer)(self.began.elapsed(), event);
    }

    fn with<R>(&self, vp: u32, work: impl FnOnce(&mut Option<(String, Option<u16>)>) -> R) -> R {
        work(&mut self.pending[vp as usize].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Trace for Intercepts {
    fn event(&self, event: &TraceEvent<'_>) {
        if self.trace {
            self.tell(Event::Trace(&event.to_string()));
        }
        match event {
            TraceEvent::Message { vp, vtl: Vtl::Vtl1, .. } => {
                self.with(*vp, |pending| *pending = Some((event.to_string(), None)));
            }
            TraceEvent::PendingEvent { vp, vtl: Vtl::Vtl0, event } => self.with(*vp, |pending| {
                if let Some((_, raised)) = pending {
                    *raised = Some(event.vector());
                }
            }),
            TraceEvent::Return { vp, .. } => {
                let Some((what, raised)) = self.with(*vp, Option::take) else { return };
                let what = match raised {
                    Some(vector) => format!("{what}: exception {vector}"),
                    None => format!("{what}: carried out"),
                };
                self.tell(Event::Intercept { vp: *vp, what: &what });
            }
            TraceEvent::Undefined { .. } => self.tell(Event::Report(&event.to_string())),
            _ => {}
        }
    }
}
