/// Verifies a module.
///
/// Returns its token.
fn validate_module(
    call: &CallContext<'_>,
    list: HekiList,
    flags: Flags<7>,
) -> Result<Token, VsmError> {
    verify(call, list, flags)
}
const _: () = {
    const PARAM_0: ::litebox_platform_lvbs::vsm::Param<HekiList> = ::litebox_platform_lvbs::vsm::Param::<
        HekiList,
    >::new("list");
    const PARAM_1: ::litebox_platform_lvbs::vsm::Param<Flags<7>> = ::litebox_platform_lvbs::vsm::Param::<
        Flags<7>,
    >::new("flags");
    const REPLY: ::litebox_platform_lvbs::vsm::Reply<Token> = ::litebox_platform_lvbs::vsm::Reply::<
        Token,
    >::of_type();
    const _: () = ::core::assert!(
        ::litebox_platform_lvbs::vsm::Registers::are_enough_for(& [PARAM_0.meta(),
        PARAM_1.meta()]),
        "VSM053: the parameters of a VSM call take at most three registers together",
    );
    #[automatically_derived]
    impl ::litebox_platform_lvbs::vsm::Handles<
        ::litebox_platform_lvbs::vsm::calls::ValidateModule,
    > for crate::VsmTable {
        const META: ::litebox_platform_lvbs::vsm::HandlerMeta = ::litebox_platform_lvbs::vsm::HandlerMeta {
            name: "validate_module",
            phase: ::litebox_platform_lvbs::vsm::PhaseRule::Any,
            caller: ::litebox_platform_lvbs::vsm::CallerRule::Any,
            implemented: true,
            params: &[PARAM_0.meta(), PARAM_1.meta()],
            reply: REPLY.kind(),
            errors: &[
                ::litebox_platform_lvbs::vsm::ErrnoMeta::new(
                    ::litebox_platform_lvbs::Errno::EINVAL,
                    "unexplained",
                ),
                ::litebox_platform_lvbs::vsm::ErrnoMeta::new(
                    ::litebox_platform_lvbs::Errno::EACCES,
                    "another's",
                ),
            ],
            doc: "Verifies a module.\n\nReturns its token.",
            file: ::core::file!(),
            line: ::core::line!(),
        };
        fn call(
            context: &::litebox_platform_lvbs::vsm::CallContext<'_>,
            registers: &[u64; 3],
        ) -> ::core::result::Result<u32, ::litebox_platform_lvbs::vsm::Refusal> {
            let mut registers = ::litebox_platform_lvbs::vsm::Registers::new(registers);
            REPLY
                .answer(
                    validate_module(
                        context,
                        registers.take(&PARAM_0, context.platform())?,
                        registers.take(&PARAM_1, context.platform())?,
                    ),
                )
        }
    }
};
