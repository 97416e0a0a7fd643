//! Tests.

#[test]
fn a_file_as_input_is_read_by_the_child_itself() {
    crate::support::alone!({
        let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let expected = std::fs::read(&manifest).unwrap();
        let open = || std::fs::File::open(&manifest).unwrap();
        let output = crate::support::fixture("cat").input(open()).output().unwrap();
        assert_eq!(output.stdout(), expected);
        assert_eq!(output.input_accepted(), 0, "nothing was fed");
        // A conversation has a pipe already, so there it is fed.
        let mut child = crate::support::fixture("cat").pipe_all().spawn().unwrap();
        let output = child.communicate(open()).unwrap();
        assert_eq!((output.stdout(), output.input_accepted()), (&expected[..], expected.len() as u64));
    });
}
