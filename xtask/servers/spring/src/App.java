package com.kerwin.gray.loadbalancer;

import java.util.LinkedHashMap;
import java.util.Map;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.cloud.client.discovery.EnableDiscoveryClient;
import org.springframework.cloud.openfeign.EnableFeignClients;
import org.springframework.cloud.openfeign.FeignClient;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.RestController;

/** user-app and order-app of the Spring Cloud design, with its starter. */
@SpringBootApplication
@EnableDiscoveryClient
@EnableFeignClients
public class App {
    public static void main(String[] args) {
        SpringApplication.run(App.class, args);
    }

    @FeignClient("user-app")
    interface UserClient {
        @GetMapping("/user/{id}")
        Map<String, Object> user(@PathVariable("id") String id);
    }

    @RestController
    static class Endpoints {
        @Value("${spring.application.name}")
        private String service;

        @Value("${spring.cloud.nacos.discovery.metadata.version}")
        private String version;

        @Autowired private UserClient users;

        @GetMapping("/user/{id}")
        public Map<String, Object> user(@PathVariable("id") String id) {
            Map<String, Object> answer = identity();
            answer.put("userId", id);
            return answer;
        }

        @GetMapping("/order/{id}")
        public Map<String, Object> order(@PathVariable("id") String id) {
            Map<String, Object> answer = identity();
            answer.put("orderId", id);
            answer.put("user", users.user(id));
            return answer;
        }

        private Map<String, Object> identity() {
            Map<String, Object> answer = new LinkedHashMap<>();
            answer.put("service", service);
            answer.put("version", version);
            answer.put("lane", String.valueOf(GrayFlagRequestHolder.getGrayTag()));
            answer.put("language", "Java");
            return answer;
        }
    }
}
