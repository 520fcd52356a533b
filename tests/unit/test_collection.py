"""What collecting the tests may cost: every process that runs some of them collects all."""


def test_collecting_imports_no_engine(imported_while_collecting):
    """Import torch and its kind inside the test, or in a fixture of the module."""
    assert imported_while_collecting == {}
