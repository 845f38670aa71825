"""A package to a repository of the hub, for who has a token."""

from __future__ import annotations

import re
from pathlib import Path

from sousa_bench.errors import UserError, first_line
from sousa_bench.models.download import CONNECT_SECONDS
from sousa_bench.system.deadline import within

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class HubError(UserError):
    """The hub that can't be reached, or doesn't take the package."""


def check_access(repo: str) -> None:
    """Ask the hub who we are, before anything is made for it.

    Raises:
        HubError: No repository's name, no token, a token that the hub doesn't know, or no answer in time.
    """
    from huggingface_hub import HfApi, get_token

    if not _NAME.fullmatch(repo):
        raise HubError(f"--push-to-hub {repo}: give OWNER/NAME, the repository on the hub")
    if not get_token():
        raise HubError(f"--push-to-hub {repo}: there is no token; log in first (hf auth login) or set HF_TOKEN")
    try:
        within(CONNECT_SECONDS, lambda: HfApi().whoami())
    except Exception as error:  # the hub's client raises errors of its own and of whichever HTTP library it uses
        raise HubError(f"--push-to-hub {repo}: the hub doesn't let us in: {first_line(error)}") from error


def push(folder: Path, repo: str, *, private: bool = False) -> str:
    """Upload a package, making the repository where there is none.

    Returns:
        Address of the commit.

    Raises:
        HubError: The upload failed; the package itself stands.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload a sousa_bench package")
    except Exception as error:  # as above
        raise HubError(
            f"--push-to-hub {repo}: {first_line(error)}; the package stands in {folder}: upload it again with "
            f"hf upload {repo} {folder}"
        ) from error
    return str(commit.commit_url)
