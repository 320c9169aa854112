"""What pyproject.toml cannot say: configs/, which stands beside the packages, goes into the wheel as som/configs."""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    packages=[
        *find_packages(include=["som*", "flow*"]),
        "som.configs",
        *(f"som.configs.{name}" for name in find_namespace_packages("configs")),
    ],
    package_dir={"som.configs": "configs"},
    package_data={"": ["py.typed", "*.yaml"]},
)
