::core::compile_error! {
    "VSM006: unknown value of `phase`; accepted are `boot` (before the end of boot), `runtime` (after it), `any`"
}
::core::compile_error! {
    "VSM003: missing `caller`: say which processors may make the call, `caller = bsp|any`"
}
::core::compile_error! {
    "VSM010: missing `errors`: list the handler's own errnos and when each occurs, `errors(EINVAL = \"when\", …)`; `errors()` if there are none but those of the gate and of the parameters"
}
::core::compile_error! {
    "VSM021: a handler needs a doc comment: listings of the table show it"
}
::core::compile_error! {
    "VSM025: a handler is not `unsafe`: VTL0 calls it with whatever it likes"
}
::core::compile_error! {
    "VSM034: a handler returns `Result<T, VsmError>`, where `T` is `()` or another reply type"
}
#[allow(dead_code, unused_variables, missing_docs, non_upper_case_globals, clippy::all)]
fn patch_text(call: &CallContext<'_>) -> i64 {
    0
}
#[automatically_derived]
impl ::litebox_platform_lvbs::vsm::Handles<
    ::litebox_platform_lvbs::vsm::calls::PatchText,
> for crate::VsmTable {
    const META: ::litebox_platform_lvbs::vsm::HandlerMeta = ::litebox_platform_lvbs::vsm::HandlerMeta {
        name: "",
        phase: ::litebox_platform_lvbs::vsm::PhaseRule::Boot,
        caller: ::litebox_platform_lvbs::vsm::CallerRule::Bsp,
        implemented: false,
        params: &[],
        reply: "",
        errors: &[],
        doc: "",
        file: "",
        line: 0,
    };
    fn call(
        _: &::litebox_platform_lvbs::vsm::CallContext<'_>,
        _: &[u64; 3],
    ) -> ::core::result::Result<u32, ::litebox_platform_lvbs::vsm::Refusal> {
        ::core::result::Result::Err(
            ::litebox_platform_lvbs::vsm::Refusal::ByHandler(
                ::litebox_platform_lvbs::VsmError::NotImplemented,
            ),
        )
    }
}
