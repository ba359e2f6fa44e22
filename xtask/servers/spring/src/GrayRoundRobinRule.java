package com.kerwin.gray.loadbalancer;

import com.alibaba.cloud.nacos.ribbon.NacosServer;
import com.netflix.client.config.IClientConfig;
import com.netflix.loadbalancer.AbstractLoadBalancerRule;
import com.netflix.loadbalancer.Server;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.core.env.Environment;

/** Round robin among the servers of the version that the request may reach. */
public class GrayRoundRobinRule extends AbstractLoadBalancerRule {
    private final AtomicInteger next = new AtomicInteger();

    @Autowired private Environment environment;

    @Value("${spring.cloud.nacos.discovery.metadata.version}")
    private String metaVersion;

    @Override
    public Server choose(Object key) {
        List<Server> servers = grayServers();
        return servers.isEmpty() ? null : servers.get(Math.floorMod(next.getAndIncrement(), servers.size()));
    }

    private List<Server> grayServers() {
        List<Server> reachable = getLoadBalancer().getReachableServers();
        GrayStatusEnum tag = GrayFlagRequestHolder.getGrayTag();
        if (tag == GrayStatusEnum.ALL) {
            return reachable;
        }
        String version = metaVersion;
        if (tag == GrayStatusEnum.PROD) {
            version = environment.getProperty("kerwin.tool.gray.version.prodVersion");
        } else if (tag == GrayStatusEnum.GRAY) {
            version = environment.getProperty("kerwin.tool.gray.version.grayVersion");
        }
        List<Server> servers = new ArrayList<>();
        for (Server server : reachable) {
            String announced = ((NacosServer) server).getMetadata().get("version");
            if (announced != null && announced.equals(version)) {
                servers.add(server);
            }
        }
        return servers;
    }

    @Override
    public void initWithNiwsConfig(IClientConfig config) {}
}
