"""Refuse to build a wheel; pyproject.toml has everything else about the package."""

from setuptools import setup  # type: ignore[import-untyped]  # it ships no types
from setuptools.command.bdist_wheel import bdist_wheel  # type: ignore[import-untyped]


class RefusedWheel(bdist_wheel):  # type: ignore[misc]  # its base has no types
    """The command that `pip wheel` and `pip install` run; an editable install does not."""

    def run(self) -> None:
        raise SystemExit(
            "drawbridge is a Pulumi program and cannot be packed into a wheel: it runs from a checkout. "
            "Clone it and run tools/setup, or install the checkout in place: pip install --editable ."
        )


setup(cmdclass={"bdist_wheel": RefusedWheel})
