//! Every call over the hypervisor model, in a machine on the host: what is accepted and what is refused, that a failure at any
//! step leaves nothing behind, and that VTL0 may change its memory and come in on other processors meanwhile.
//!
//! | module | what is shown |
//! |---|---|
//! | [`protect_memory`] | ProtectMemory |
//! | [`kdata`] | LoadKData |
//! | [`modules`] | ValidateModule, FreeModuleInit, UnloadModule, CopySecondaryKey |
//! | [`kexec`] | KexecValidate |
//! | [`patch_text`] | PatchText |
//! | [`processors`] | EnableAPsVtl, BootAPs, and processors that start after the end of boot |
//! | [`lock`] | LockRegs, and the intercepts that it asks for |
//! | [`ring`] | AllocateRingbufferMemory, the reader of the log ring, and limits of the log |
//! | [`query`], [`optee`], [`root_key`] | Query, OpteeMessage, SetPlatformRootKey |
//! | [`owners`] | for every call and every owner of a frame, what a call that names the frame can do to it |
//! | [`setup`] | a machine, and calls on it |
//! | [`failing`], [`racing`] | a hypervisor that refuses, a VTL0 that rewrites its memory meanwhile |
//! | [`linux`] | a machine whose VTL0 loads modules and kexec images as Linux does |

mod failing;
mod kdata;
mod kexec;
mod linux;
mod lock;
mod modules;
mod optee;
mod owners;
mod patch_text;
mod processors;
mod protect_memory;
mod query;
mod racing;
mod ring;
mod root_key;
mod setup;
