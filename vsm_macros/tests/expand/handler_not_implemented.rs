#[automatically_derived]
impl ::litebox_platform_lvbs::vsm::Handles<
    ::litebox_platform_lvbs::vsm::calls::PatchText,
> for crate::VsmTable {
    const META: ::litebox_platform_lvbs::vsm::HandlerMeta = ::litebox_platform_lvbs::vsm::HandlerMeta {
        name: "patch_text",
        phase: ::litebox_platform_lvbs::vsm::PhaseRule::Runtime,
        caller: ::litebox_platform_lvbs::vsm::CallerRule::Any,
        implemented: false,
        params: &[],
        reply: "",
        errors: &[],
        doc: "Writes a patch.",
        file: ::core::file!(),
        line: ::core::line!(),
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
