import pytest

from trainables.titles import title


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("estimator.temperature_forward", "temperature (forward)"),
        ("optim.lr", "learning rate"),
        ("estimator.name", "estimator"),
        ("data.name", "data set"),
        ("guide.likelihood.name", "likelihood (guide)"),
        ("encoder.hidden", "hidden (encoder)"),  # decoders have the field too
        ("decoder.hidden", "hidden (decoder)"),
        ("batch_size", "batch size"),
        ("method", "method"),  # the name of a variant
        ("nobody.knows_it", "knows it"),
    ],
)
def test_a_field_has_the_title_that_stands_beside_it_else_its_name(path, text):
    assert title(path) == text
