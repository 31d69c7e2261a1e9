"""The lens: where a recurrence's gradient goes, and what its gates and states do."""

from elman.engines.exponent import largest_lyapunov_exponent
from elman.lens.activations import Activity, activity
from elman.lens.cliff import Descent, descend
from elman.lens.comparison import Compared, side_by_side
from elman.lens.flow import CellFlow, GradientFlow, Verdict, gradient_flow
from elman.lens.jacobians import lyapunov_exponents, product, singular_values, step_jacobians
from elman.lens.textbook import Chain, depth, repeated_products

__all__ = [
    "Activity",
    "CellFlow",
    "Chain",
    "Compared",
    "Descent",
    "GradientFlow",
    "Verdict",
    "activity",
    "depth",
    "descend",
    "gradient_flow",
    "largest_lyapunov_exponent",
    "lyapunov_exponents",
    "product",
    "repeated_products",
    "side_by_side",
    "singular_values",
    "step_jacobians",
]
