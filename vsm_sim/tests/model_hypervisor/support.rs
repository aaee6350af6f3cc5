//! A bare partition and raw hypercall blocks, written from the LVBS contract and the TLFS by number.
//!
//! Nothing here uses the platform crate's layouts: a wrong layout there must not hide behind itself.

use litebox_platform_lvbs::address::FrameRange;
use litebox_platform_lvbs::hv::{HvStatus, Vtl};
use vsm_sim::hosted::HostedMemory;
use vsm_sim::hv::{GuestMemory, Partition, PartitionConfig};

/// Hypercall input of either VTL.
pub const INPUT: u64 = 0x2000;
/// Hypercall output of either VTL.
pub const OUTPUT: u64 = 0x3000;
/// VTL1's VP assist page of VP 0.
pub const ASSIST: u64 = 0x5000;
/// VTL1's message page of VP 0.
pub const SIMP: u64 = 0x6000;
/// RAM ends here.
pub const RAM_END: u64 = 0x100_0000;

/// A partition with memory.
pub struct Setup {
    pub memory: HostedMemory,
    pub partition: Partition,
}

impl Setup {
    /// 16 MiB of RAM, two processors, the hypercall pages enabled, VTL1 not enabled.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, with another configuration.
    pub fn with(change: impl FnOnce(&mut PartitionConfig)) -> Self {
        let ram = vec![FrameRange::from_bytes(0, RAM_END).unwrap()];
        let memory = HostedMemory::new(ram.clone());
        let mut config = PartitionConfig::new(ram, 2);
        change(&mut config);
        let setup = Self { memory, partition: Partition::new(config) };
        for (vtl, page) in [(Vtl::Vtl0, 0x1000), (Vtl::Vtl1, 0x4000)] {
            setup.write_msr(vtl, 0x4000_0000, 0x8100_0000_0000_0000).unwrap();
            setup.write_msr(vtl, 0x4000_0001, page | 1).unwrap();
        }
        setup
    }

    /// VTL1 enabled with MBEC on VP 0 and running there.
    pub fn in_vtl1() -> Self {
        let setup = Self::new();
        assert_eq!(setup.enable_partition_vtl(1, 1), HvStatus::SUCCESS);
        assert_eq!(setup.enable_vp_vtl(0xffff_fffe, &context()), HvStatus::SUCCESS);
        setup.call();
        setup
    }

    /// The same with `vps` processors.
    pub fn with_vps_in_vtl1(vps: u32) -> Self {
        let setup = Self::with(|config| config.vps = vps);
        assert_eq!(setup.enable_partition_vtl(1, 1), HvStatus::SUCCESS);
        assert_eq!(setup.enable_vp_vtl(0xffff_fffe, &context()), HvStatus::SUCCESS);
        setup.call();
        setup
    }

    /// The same, and protections are enabled with everything allowed by default.
    pub fn protecting() -> Self {
        let setup = Self::in_vtl1();
        assert_eq!(setup.set(0, 0x000d_0007, 0x1f), HvStatus::SUCCESS);
        setup
    }

    pub fn call(&self) {
        self.partition.vtl_call(0, 0, 0, &self.memory).unwrap();
    }

    pub fn fast_return(&self) {
        self.partition.vtl_return(0, 0, 1, &self.memory).unwrap();
    }

    pub fn write_msr(&self, vtl: Vtl, number: u32, value: u64) -> Result<(), vsm_sim::hv::Fault> {
        self.partition.msr_write(0, vtl, number, value, &self.memory)
    }

    /// Makes a hypercall on VP 0 with `block` as its input; status and elements done.
    pub fn hypercall(&self, control: u64, block: &[u8]) -> (HvStatus, u64) {
        self.memory.write(INPUT, block).unwrap();
        self.hypercall_at(control, INPUT, OUTPUT)
    }

    pub fn hypercall_at(&self, control: u64, input: u64, output: u64) -> (HvStatus, u64) {
        let vtl = self.partition.active_vtl(0);
        let rax = self.partition.hypercall(0, vtl, control, input, output, &self.memory).0;
        assert_eq!(rax & 0xffff_f000_ffff_0000, 0, "reserved bits of the result");
        (HvStatus(u16::try_from(rax & 0xffff).unwrap()), rax >> 32 & 0xfff)
    }

    pub fn enable_partition_vtl(&self, vtl: u8, flags: u8) -> HvStatus {
        let mut block = [0xff; 16];
        block[8..].fill(0);
        block[8] = vtl;
        block[9] = flags;
        self.hypercall(0x000d, &block).0
    }

    pub fn enable_vp_vtl(&self, vp: u32, context: &[u8; 224]) -> HvStatus {
        let mut block = [0xff; 240];
        block[8..12].copy_from_slice(&vp.to_le_bytes());
        block[12..16].copy_from_slice(&[1, 0, 0, 0]);
        block[16..].copy_from_slice(context);
        self.hypercall(0x000f, &block).0
    }

    /// HvCallModifyVtlProtectionMask with the LVBS input VTL 0.
    pub fn protect(&self, flags: u32, gfns: &[u64]) -> (HvStatus, u64) {
        self.hypercall(0x000c | (gfns.len() as u64) << 32, &protect_block(flags, 0, gfns))
    }

    /// Reads one register of VP 0.
    pub fn get(&self, input_vtl: u8, name: u32) -> Result<u64, HvStatus> {
        let mut block = registers_header(0xffff_fffe, input_vtl);
        block.extend(name.to_le_bytes());
        match self.hypercall(0x0050 | 1 << 32, &block) {
            (HvStatus::SUCCESS, 1) => {
                let mut value = [0; 8];
                self.memory.read(OUTPUT, &mut value).unwrap();
                Ok(u64::from_le_bytes(value))
            }
            (status, done) => {
                assert_eq!(done, 0);
                Err(status)
            }
        }
    }

    /// Writes one register of VP 0.
    pub fn set(&self, input_vtl: u8, name: u32, value: u64) -> HvStatus {
        let mut block = registers_header(0xffff_fffe, input_vtl);
        block.extend(set_element(name, value));
        self.hypercall(0x0051 | 1 << 32, &block).0
    }

    /// What the model reported, as text.
    pub fn reports(&self) -> Vec<String> {
        self.partition.reports().into_iter().map(|report| report.what).collect()
    }
}

pub fn protect_block(flags: u32, input_vtl: u8, gfns: &[u64]) -> Vec<u8> {
    let mut block = vec![0xff; 8];
    block.extend(flags.to_le_bytes());
    block.extend([input_vtl, 0, 0, 0]);
    for gfn in gfns {
        block.extend(gfn.to_le_bytes());
    }
    block
}

pub fn registers_header(vp: u32, input_vtl: u8) -> Vec<u8> {
    let mut block = vec![0xff; 8];
    block.extend(vp.to_le_bytes());
    block.extend([input_vtl, 0, 0, 0]);
    block
}

pub fn set_element(name: u32, value: u64) -> Vec<u8> {
    let mut element = name.to_le_bytes().to_vec();
    element.resize(16, 0);
    element.extend(value.to_le_bytes());
    element.resize(32, 0);
    element
}

/// The boot processor's context of the LVBS contract §2.5 (region at 0x800000), byte by byte.
pub fn context() -> [u8; 224] {
    let mut context = [0; 224];
    let mut put = |at: usize, bytes: &[u8]| context[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &0x00a0_0000_u64.to_le_bytes());
    put(8, &0x0080_e000_u64.to_le_bytes());
    put(16, &2_u64.to_le_bytes());
    // Selector and attributes lie at 12 and 14 of each segment: CS, DS, ES, FS, GS, (SS), TR.
    put(24 + 12, &[0x08, 0, 0x9b, 0x20]);
    for segment in 1..5 {
        put(24 + 16 * segment + 12, &[0x10, 0, 0x93, 0x40]);
    }
    put(24 + 16 * 6, &0x0080_1000_u64.to_le_bytes());
    put(24 + 16 * 6 + 8, &[103, 0, 0, 0, 0x18, 0, 0x8b, 0]);
    put(168 + 6, &[31, 0]);
    put(168 + 8, &0x0080_0000_u64.to_le_bytes());
    for (at, value) in
        [(184, 0xd01_u64), (192, 0x8001_0033), (200, 0x0080_2000), (208, 0xb0), (216, 0x0007_0406_0007_0406)]
    {
        put(at, &value.to_le_bytes());
    }
    context
}
