"""airbyte_cdk's own tests over a manifest. Run by the Python that has airbyte_cdk; not collected with ours."""

from airbyte_cdk.test.standard_tests import DeclarativeSourceTestSuite

pytest_plugins = ["airbyte_cdk.test.standard_tests.pytest_hooks"]


class TestManifest(DeclarativeSourceTestSuite):
    pass
