"""The compiled kernels; everything else is in pyproject.toml. Without a compiler mixstream is installed without them."""

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
