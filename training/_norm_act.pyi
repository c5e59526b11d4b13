PARALLEL: bool
LANES: int

def isas() -> list[str]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def forward(
    x: int,
    y: int,
    weight: int,
    bias: int,
    running_mean: int,
    running_var: int,
    mean: int,
    invstd: int,
    rows: int,
    channels: int,
    eps: float,
    momentum: float,
    threads: int,
    /,
) -> None: ...
def backward(
    x: int,
    dy: int,
    dy_step: int,
    dx: int,
    weight: int,
    bias: int,
    mean: int,
    invstd: int,
    dweight: int,
    dbias: int,
    rows: int,
    channels: int,
    threads: int,
    /,
) -> None: ...
