from tunesmith.redaction import without_secrets


def test_values_of_variables_that_hold_secrets_are_replaced_by_their_names():
    environment = {
        "TUNESMITH_SECRET_STUB_KEY": "sk-1234", "AWS_SECRET_ACCESS_KEY": "sk-1234-longer", "HF_TOKEN": "abc",
        "OTHER": "plain",
    }  # fmt: skip
    said = without_secrets("sk-1234-longer, sk-1234, abc, plain", environment)
    assert said == "<AWS_SECRET_ACCESS_KEY>, <TUNESMITH_SECRET_STUB_KEY>, abc, plain"
