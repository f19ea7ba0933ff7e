import pytest

from convsdk.core.forms import Form


@pytest.mark.parametrize(
    ("email", "told"), [("optional", "optional or removed"), ("removed", "optional or removed"), ("yes", "something")]
)
def test_form_without_an_address_is_refused(email, told):
    """Every form asks for the e-mail address: whoever leaves that out is told how to write it."""
    with pytest.raises(ValueError, match=rf"email is {told}.*set email = 'required'"):
        Form(email=email)


def test_form_knows_no_other_field():
    """A field that forms do not have is as one that was removed."""
    form = Form(email="required", phone="required")

    assert [form.presence(name) for name in ("email", "phone", "name", "shoe size")] == [
        "required",
        "required",
        "optional",
        "removed",
    ]
