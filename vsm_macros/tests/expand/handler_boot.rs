/// Ends the boot.
pub fn signal_end_of_boot(call: &BootContext<'_>) -> Result<(), VsmError> {
    call.boot_call().end_boot()
}
const _: () = {
    const REPLY: ::litebox_platform_lvbs::vsm::Reply<()> = ::litebox_platform_lvbs::vsm::Reply::<
        (),
    >::of_type();
    const _: () = ::core::assert!(
        ::litebox_platform_lvbs::vsm::Registers::are_enough_for(& []),
        "VSM053: the parameters of a VSM call take at most three registers together",
    );
    #[automatically_derived]
    impl ::litebox_platform_lvbs::vsm::Handles<
        ::litebox_platform_lvbs::vsm::calls::SignalEndOfBoot,
    > for crate::VsmTable {
        const META: ::litebox_platform_lvbs::vsm::HandlerMeta = ::litebox_platform_lvbs::vsm::HandlerMeta {
            name: "signal_end_of_boot",
            phase: ::litebox_platform_lvbs::vsm::PhaseRule::Boot,
            caller: ::litebox_platform_lvbs::vsm::CallerRule::Bsp,
            implemented: true,
            params: &[],
            reply: REPLY.kind(),
            errors: &[],
            doc: "Ends the boot.",
            file: ::core::file!(),
            line: ::core::line!(),
        };
        fn call(
            context: &::litebox_platform_lvbs::vsm::CallContext<'_>,
            _: &[u64; 3],
        ) -> ::core::result::Result<u32, ::litebox_platform_lvbs::vsm::Refusal> {
            let context = ::litebox_platform_lvbs::vsm::BootContext::new(context)?;
            let context = &context;
            REPLY.answer(signal_end_of_boot(context))
        }
    }
};
