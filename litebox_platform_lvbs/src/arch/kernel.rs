//! The image's one kernel, set by boot.

use spin::Once;

use crate::platform::Platform;

static PLATFORM: Once<Platform> = Once::new();

/// The image's one kernel.
///
/// # Panics
/// When boot has not put it together yet.
pub fn platform() -> &'static Platform {
    PLATFORM.get().expect("the platform is set up before anything asks for it")
}

/// The image's one kernel, if boot has put it together: the log starts before that.
pub(super) fn platform_if_ready() -> Option<&'static Platform> {
    PLATFORM.get()
}

/// Makes `platform` the image's kernel. Called once, by boot.
pub fn set_platform(platform: Platform) -> &'static Platform {
    PLATFORM.call_once(|| platform)
}
