//! ValidateModule, FreeModuleInit, UnloadModule, CopySecondaryKey over the hosted machine.

mod beside;
mod captured;
mod failures;
mod keys;
mod life;
mod races;
mod records;
mod refusals;
mod thunks;
