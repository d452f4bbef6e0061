//! The errors of `#[derive(HealthCheck)]` for what cannot be derived.

#[test]
fn invalid_states_do_not_compile_and_the_errors_name_the_solution() {
    trybuild::TestCases::new().compile_fail("ui/*.rs");
}
