"""Finding the app that -A names, and saying what is wrong when it is not there."""

import sys

import click
import pytest

from streamcore.cli.discovery import find_app

APP = 'import streamcore as sc\napp = sc.App("shop", broker="memory:")\n'


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if not name.startswith("streamcore"):
            del sys.modules[name]


def complaint(spec):
    with pytest.raises(click.ClickException) as caught:
        find_app(spec)
    return caught.value.format_message()


@pytest.mark.parametrize("spec", ["cli_shop", "cli_shop:app", "cli_shop.py", "./cli_shop.py:app"])
def test_an_app_is_found_by_module_or_path(here, spec):
    (here / "cli_shop.py").write_text(APP)
    assert find_app(spec).id == "shop"


@pytest.mark.parametrize("spec", ["cli_pkg.orders", "cli_pkg/orders.py", "cli_pkg.orders:app"])
def test_a_module_in_a_package_keeps_its_name(here, spec):
    (here / "cli_pkg").mkdir()
    (here / "cli_pkg" / "__init__.py").write_text("")
    (here / "cli_pkg" / "names.py").write_text('NAME = "shop"\n')
    (here / "cli_pkg" / "orders.py").write_text(
        'import streamcore as sc\nfrom .names import NAME\napp = sc.App(NAME, broker="memory:")\n'
    )
    assert find_app(spec).id == "shop"


def test_an_app_of_any_name_is_found_when_it_is_the_only_one(here):
    (here / "cli_one.py").write_text(APP.replace("app =", "shop ="))
    assert find_app("cli_one").id == "shop"


def test_several_apps_need_a_choice(here):
    (here / "cli_two.py").write_text(
        'import streamcore as sc\none = sc.App("one", broker="memory:")\ntwo = sc.App("two", broker="memory:")\n'
    )
    assert "several apps: one, two" in complaint("cli_two")
    assert find_app("cli_two:two").id == "two"


def test_a_mistyped_module_is_answered_with_the_one_that_was_meant(here):
    (here / "cli_health.py").write_text(APP)
    assert "Did you mean 'cli_health'?" in complaint("cli_helth")
    assert "Did you mean 'cli_health.py'?" in complaint("cli_helth.py")


def test_a_mistyped_attribute_is_answered_with_the_one_that_was_meant(here):
    (here / "cli_attr.py").write_text(APP)
    assert "Did you mean 'app'?" in complaint("cli_attr:ap")


def test_a_module_without_an_app_says_how_to_define_one(here):
    (here / "cli_none.py").write_text("x = 1\n")
    assert "has no app" in complaint("cli_none")
    assert "is a int, not an App" in complaint("cli_none:x")


def test_a_module_that_fails_says_where(here):
    (here / "cli_fails.py").write_text("x = 1\ny = z\n")
    message = complaint("cli_fails")
    assert "NameError" in message
    assert "line 2" in message
    (here / "cli_syntax.py").write_text("def\n")
    assert "line 1" in complaint("cli_syntax")


def test_a_missing_dependency_is_told_from_a_missing_module(here):
    (here / "cli_needs.py").write_text("import cli_not_installed\n")
    assert "needs 'cli_not_installed'" in complaint("cli_needs")
