"""The compiled kernels, left out where there is no compiler; everything else is in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "mixstream._kernels",
            ["mixstream/_kernels.c"],
            extra_compile_args=["-O3", "-std=gnu11", "-Wall"],
            optional=True,
        )
    ]
)
