from typing import TypedDict

class Config(TypedDict):
    compiler: str
    openmp: int
    built: tuple[str, ...]
    supported: tuple[str, ...]
    picked: str
    disabled: tuple[str, ...]

def built() -> tuple[str, ...]: ...
def supported() -> tuple[str, ...]: ...
def use(name: str) -> str | None: ...
def config() -> Config: ...
