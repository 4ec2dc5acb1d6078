"""quadrature_expectation in lanes: f with one site at each node of its rule, the others as they were drawn."""

from __future__ import annotations

from estimators.kernels.backend import Function
from estimators.kernels.base import Form, Lanes
from estimators.kernels.families import INVERSE, MU, SIGMA


def quadrature_expectation(nodes: int, samples: int) -> Form:
    """g_d = 1/K sum_k sum_i w_i f(z_k with mu_d + sigma_d eps_i) (eps_i / sigma_d, eps_i^2 - 1).

    L = mean over d and k of sum_i w_i f there: each point has the share w_i / (D K) of the model's gradient.
    """

    def build(at: Lanes) -> Function:
        from estimators.quadrature_expectation import gauss_hermite

        D, L, S, R, sample = at.D, at.L, at.S, at.be.real, at.q.sample
        begin, moved, credit = at.begin, at.moved, at.credit
        eps, w = (t.numpy() for t in gauss_hermite(nodes))
        EPS, SHARE = eps.astype(R), (w / (D * samples)).astype(R)
        BY_MU, BY_SIGMA = (w * eps / samples).astype(R), (w * (eps**2 - 1) / samples).astype(R)
        ZERO = R(0)

        @at.be.jit
        def estimate(g, x, e, r, c):  # type: ignore[no-untyped-def]
            g[:] = ZERO
            z, fx, v, share, own = x[0], r[0], r[1], r[2], r[3]
            for k in range(samples):
                sample(z, e[0], k, c)
                begin(z, c)
                for d in range(D):
                    for i in range(nodes):
                        for l in range(L):
                            v[l] = c.par[MU, d, S * l] + c.par[SIGMA, d, S * l] * EPS[i]
                        moved(fx, z, d, v, c)
                        for l in range(L):
                            g[d, l] += BY_MU[i] * fx[l] * c.par[INVERSE, d, S * l]
                            g[D + d, l] += BY_SIGMA[i] * fx[l]
                            own[l] = z[d, l]
                            z[d, l] = v[l]
                            share[l] = SHARE[i]
                        credit(z, share, c)
                        for l in range(L):
                            z[d, l] = own[l]

        return estimate

    return Form(1, 4, build, families=("normal",))
