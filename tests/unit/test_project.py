"""Check Pulumi.yaml as a template for `pulumi new`. Does not run Pulumi: tests/program/test_pulumi_cli.py does."""

from typing import Any

import yaml

from settings.parse import parse
from tests.support.sources import ROOT

PROJECT: dict[str, Any] = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())

#: Keys of a template and of a setting that it asks for, as Pulumi's schema of project files lists them
#: (https://www.pulumi.com/docs/iac/concepts/projects/project-file/, "template options").
TEMPLATE_KEYS = {"config", "description", "important", "quickstart"}
SETTING_KEYS = {"default", "description", "secret"}


def test_the_template_has_only_keys_that_pulumi_documents() -> None:
    template = PROJECT["template"]
    assert template.keys() <= TEMPLATE_KEYS
    assert all(setting.keys() <= SETTING_KEYS for setting in template["config"].values())
    assert template["description"] and all(setting["description"] for setting in template["config"].values())


def test_the_answers_that_the_template_suggests_are_a_valid_stack() -> None:
    answers = {key: setting["default"] for key, setting in PROJECT["template"]["config"].items()}
    settings = parse(answers, stack="dev", endpoint=None)
    assert settings.region == answers["aws:region"]
    assert settings.clients == ()
