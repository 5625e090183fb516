import pytest
from jinja2 import DictLoader, TemplateNotFound, UndefinedError

from machine import render


@pytest.fixture
def templates(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {"a.xml.j2": "<n>{{ name }}</n>", "a.sh.j2": "{{ name }}", "a.json.j2": "{{ name | tojson }}\n"}
    monkeypatch.setattr(render._environment(), "loader", DictLoader(sources))
    monkeypatch.setattr(render._environment(), "cache", None)


@pytest.mark.usefixtures("templates")
def test_xml_is_escaped_and_nothing_else() -> None:
    assert render.render("a.xml.j2", name="<&\"'>") == "<n>&lt;&amp;&#34;&#39;&gt;</n>"
    assert render.render("a.sh.j2", name="<&>") == "<&>"
    assert render.render("a.json.j2", name='"\n') == '"\\"\\n"\n'


@pytest.mark.usefixtures("templates")
def test_a_forgotten_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="name"):
        render.render("a.sh.j2")


@pytest.mark.usefixtures("templates")
def test_a_value_is_never_a_template() -> None:
    assert render.render("a.sh.j2", name="{{ 7 * 7 }}") == "{{ 7 * 7 }}"


def test_templates_come_from_the_package() -> None:
    assert "instance-id" in render.render("seed/meta-data.yaml.j2", instance_id="u", hostname="dev")
    with pytest.raises(TemplateNotFound):
        render.render("no-such.j2")
